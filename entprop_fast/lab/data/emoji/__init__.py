"""Build the emoji set: pictures of the same things by several artists, out of npm's packages."""
