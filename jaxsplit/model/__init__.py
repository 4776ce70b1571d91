"""Models: their shape, their layers, their loss. Pure functions of plain pytrees once declared."""
