"""What a person reads: text, Markdown, HTML, JSON, CSV."""
