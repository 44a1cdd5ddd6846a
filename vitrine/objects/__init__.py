"""Textured objects in three dimensions, drawn with torch: meshes, views, a z-buffer, light.

views = draw_views(keys, ViewDistribution())
images = render(shapes.make("turtle"), texture[None], views, size=48)  # differentiable in the texture
"""
