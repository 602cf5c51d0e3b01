"""Pictures of what a network learned: figures for Python, and one page that holds them all."""
