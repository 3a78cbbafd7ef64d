"""Reading answers: what a model's text says, in numbers, words or letters."""
