"""A folder with this file is a package to pytest: what it shares ends with its last test."""
