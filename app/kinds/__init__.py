"""One folder a kind of job; `registry` lists them."""
