"""Load purchases from a CSV file into the tables of the adapter `csv`."""

from venue_analytics.database.purchases.columns import ColumnChoice, LoadError
from venue_analytics.database.purchases.load import LoadReport, load_orders
from venue_analytics.database.purchases.rows import Reject

__all__ = ["ColumnChoice", "LoadError", "LoadReport", "Reject", "load_orders"]
