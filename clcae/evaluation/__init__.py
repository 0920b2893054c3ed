"""From images and metrics to rows, files of results, and tables."""
