"""Stand-alone scripts, started by path in a process of their own and never imported by the rest."""
