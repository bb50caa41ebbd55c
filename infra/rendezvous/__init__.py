"""Where the studio and a rented machine meet: a folder of the studio's that its API opens to it, or one in a bucket."""
