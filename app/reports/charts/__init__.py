"""Charts as SVG: marks, and the charts that are made of them."""
