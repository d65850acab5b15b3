"""Finding samples whose labels deserve another look."""
