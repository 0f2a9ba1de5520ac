"""Studies around the pack: code and results. They are not published, and nothing else imports them."""
