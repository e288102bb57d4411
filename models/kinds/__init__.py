"""What each kind of event is to a baseline, and how grave it is where it leaves what is known."""
