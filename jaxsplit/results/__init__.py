"""What an experiment leaves behind, as records: settings, cells, stages, budgets, plans. Anybody may import them; they import nobody."""
