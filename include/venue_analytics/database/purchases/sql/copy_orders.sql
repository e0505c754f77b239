-- One row: a good row of the file, as it is read.
COPY pg_temp.staged_orders FROM STDIN
