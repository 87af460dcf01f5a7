"""What the pages show, as values: objects and a clock in, a frozen page out. Pure; the templates decide nothing."""
