"""The fault suite: faults really injected, under load, judged by a recount and the list of what got a 200."""
