"""The report of a scoring: its analyses, and the page that shows them."""
