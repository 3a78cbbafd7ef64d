"""The back ends: each engine a pure description; launch turns a plan into a running endpoint."""
