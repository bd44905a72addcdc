"""Other APIs over chat completions: their requests become chat requests, chat answers become theirs."""
