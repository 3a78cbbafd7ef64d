"""Recognise what went wrong from logs: the signature catalogue as data, classification, history, recovery advice."""
