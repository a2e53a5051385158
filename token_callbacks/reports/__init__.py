"""Reading the logs back: files -> records -> rows -> tables. Needs records and prices only, never a framework."""
