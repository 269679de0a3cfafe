"""The tab that checks a folder of pictures, and starts and watches trainings."""
