"""What works with nothing installed but lbcore; it comes in through the same door as any plugin."""
