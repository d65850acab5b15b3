"""Layouts in which annotation files hold the shapes of instances: COCO, labelme, YOLO."""
