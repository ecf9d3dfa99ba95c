"""What all reports share: blocks, and the renderers that show them as a page, in a terminal and as Markdown."""
