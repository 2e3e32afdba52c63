"""People in pictures and videos: boxes, detectors, tracking from frame to frame, and smooth joints."""
