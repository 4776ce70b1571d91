"""What models compute by hand, with derivatives written out or kernels of a platform; `reference` has each in plain JAX."""
