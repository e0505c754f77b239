"""A complete system on one machine: embedded servers, Airflow and a synthetic platform."""
