"""Copy objects out of the backup: ``selection`` says what and finds conflicts, ``writer`` makes one object safely,
``restoring`` does all of it.
"""
