"""Where base models come from: one module a source, and a search over all of them."""
