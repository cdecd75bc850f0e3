"""The live page: what the topics say now, pushed to browsers. It only reads."""
