"""What a target is asked for and answers, and what every target shares on the way."""
