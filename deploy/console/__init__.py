"""Scripts, styles and the font of the console, as they come from npm's packages."""
