"""The catalog: what the backup holds now and held at each run, in one SQLite database on the target.

``schema`` has the tables, ``database`` opens them; each further module holds the SQL of one table (pair).
"""
