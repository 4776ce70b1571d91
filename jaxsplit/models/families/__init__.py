"""Model families, one a file; `Architecture.family` takes their names."""
