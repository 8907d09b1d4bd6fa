"""Copy objects out of the backup: ``selection`` says what and finds conflicts, ``writer`` makes one object safely,
``crew`` makes files in several threads, ``restoring`` does all of it.
"""
