-- One row: a valid row of the file.
COPY pg_temp.staged_orders FROM STDIN
