"""Evaluators: one scorer for each kind of item, and users' own behind one Protocol and an entry-point group."""
