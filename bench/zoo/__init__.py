"""Say of other people's networks which convert, train along both routes and strip."""
