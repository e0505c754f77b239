"""A whole system on one machine: embedded servers, Airflow, and a synthetic ticketing platform."""
