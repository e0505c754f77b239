"""This file makes the folder a package to pytest, whose fixtures end with its last test."""
