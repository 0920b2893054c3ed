"""The papers' tables: published rows beside measured ones, as Markdown, LaTeX, CSV or a page."""
