"""What keeping residuals over steps and a likeness above 1 do to portraits of the miniature."""
