"""What a release consists of beside the images: bills of materials, and the steps of its workflow as make targets."""
