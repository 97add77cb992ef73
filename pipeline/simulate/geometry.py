"""Where on the sky: tangent planes, focal planes of the two cameras, the grid of fields, the observer.

All angles in degrees unless a name says otherwise; all functions are vectorised over arrays of equal shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import erfa
import numpy as np

OBLIQUITY_DEG = 23.4392911
AU_KM = 149597870.7


@dataclass(frozen=True)
class Camera:
    """A focal plane of equal detectors on a square grid, and where the telescope stands.

    Attributes
    ----------
    side : int
        Detectors along one side of the square grid.
    width_px, height_px : int
        Pixels of one detector.
    scale_arcsec : float
        Pixel size.
    gap_deg : float
        Gap between neighbouring detectors.
    corner : int
        Detectors missing at each corner of the square, along one side.
    """

    side: int
    width_px: int
    height_px: int
    scale_arcsec: float
    gap_deg: float
    corner: int
    longitude_deg: float
    latitude_deg: float
    altitude_km: float

    @property
    def pitch_deg(self) -> tuple[float, float]:
        """Distance between centres of neighbouring detectors, in x and y."""
        scale = self.scale_arcsec / 3600.0
        return self.width_px * scale + self.gap_deg, self.height_px * scale + self.gap_deg

    @property
    def detectors(self) -> np.ndarray:
        """Grid cells (row * side + column) that hold a detector, by detector number, shape (n_detectors,)."""
        row, col = np.divmod(np.arange(self.side**2), self.side)
        edge_row, edge_col = np.minimum(row, self.side - 1 - row), np.minimum(col, self.side - 1 - col)
        return np.flatnonzero(~((edge_row < self.corner) & (edge_col < self.corner)))

    def to_plane(self, detector: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return tangent-plane coordinates (degrees) of pixel (x, y) of ``detector``."""
        row, col = np.divmod(self.detectors[detector], self.side)
        pitch_x, pitch_y = self.pitch_deg
        scale = self.scale_arcsec / 3600.0
        xi = (col - (self.side - 1) / 2) * pitch_x + (x - self.width_px / 2) * scale
        eta = (row - (self.side - 1) / 2) * pitch_y + (y - self.height_px / 2) * scale
        return xi, eta

    def to_pixel(self, xi: np.ndarray, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (detector, x, y); the detector is -1 in gaps and outside."""
        pitch_x, pitch_y = self.pitch_deg
        scale = self.scale_arcsec / 3600.0
        col = np.floor(xi / pitch_x + self.side / 2).astype(np.int64)
        row = np.floor(eta / pitch_y + self.side / 2).astype(np.int64)
        x = (xi - (col - (self.side - 1) / 2) * pitch_x) / scale + self.width_px / 2
        y = (eta - (row - (self.side - 1) / 2) * pitch_y) / scale + self.height_px / 2
        number = np.full(self.side**2 + 1, -1, dtype=np.int64)
        number[self.detectors] = np.arange(self.detectors.size)
        inside = (col >= 0) & (col < self.side) & (row >= 0) & (row < self.side)
        inside &= (x > 0) & (x < self.width_px) & (y > 0) & (y < self.height_px)
        detector = np.where(inside, number[np.where(inside, row * self.side + col, -1)], -1)
        return detector, x, y


ZTF_CAMERA = Camera(
    side=8, width_px=3072, height_px=3080, scale_arcsec=1.0125, gap_deg=0.055, corner=0,
    longitude_deg=-116.863, latitude_deg=33.3563, altitude_km=1.712,
)  # fmt: skip
"""64 quadrants of 0.86 degrees over 47 square degrees (Dekany et al. 2020, doi:10.1088/1538-3873/ab4ca2); the gaps are
averaged over the mosaic."""

RUBIN_CAMERA = Camera(
    side=15, width_px=4072, height_px=4000, scale_arcsec=0.2, gap_deg=0.004, corner=3,
    longitude_deg=-70.7494, latitude_deg=-30.2446, altitude_km=2.663,
)  # fmt: skip
"""189 detectors of 13.5 arcmin over 9.6 square degrees (Ivezic et al. 2019, doi:10.3847/1538-4357/ab042c)."""


def to_sky(
    xi: np.ndarray | float, eta: np.ndarray | float, ra0: np.ndarray | float, dec0: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Deproject tangent-plane coordinates (degrees) about (ra0, dec0) to (ra, dec)."""
    u, v = np.radians(xi), np.radians(eta)
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    bottom = cos0 - v * sin0
    ra = np.degrees(np.arctan2(u, bottom)) + ra0
    dec = np.degrees(np.arctan2(sin0 + v * cos0, np.hypot(u, bottom)))
    return ra % 360.0, dec


def to_tangent(
    ra: np.ndarray, dec: np.ndarray, ra0: np.ndarray | float, dec0: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Project (ra, dec) about (ra0, dec0) to tangent-plane coordinates in degrees (inf beyond 90 degrees)."""
    d_ra = np.radians(ra - ra0)
    sin0, cos0 = np.sin(np.radians(dec0)), np.cos(np.radians(dec0))
    sin1, cos1 = np.sin(np.radians(dec)), np.cos(np.radians(dec))
    bottom = sin0 * sin1 + cos0 * cos1 * np.cos(d_ra)
    bottom = np.where(bottom > 1e-3, bottom, np.nan)
    xi = cos1 * np.sin(d_ra) / bottom
    eta = (cos0 * sin1 - sin0 * cos1 * np.cos(d_ra)) / bottom
    return np.nan_to_num(np.degrees(xi), nan=np.inf), np.nan_to_num(np.degrees(eta), nan=np.inf)


def unit_vector(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return unit vectors, shape (n, 3)."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def position_of(vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (ra, dec) of vectors of any length, shape (n, 3)."""
    ra = np.degrees(np.arctan2(vector[..., 1], vector[..., 0])) % 360.0
    return ra, np.degrees(np.arctan2(vector[..., 2], np.hypot(vector[..., 0], vector[..., 1])))


def separation_arcsec(ra1: np.ndarray, dec1: np.ndarray, ra2: np.ndarray, dec2: np.ndarray) -> np.ndarray:
    """Return great-circle separations, shape (n,), exact at small angles."""
    chord = np.linalg.norm(unit_vector(ra1, dec1) - unit_vector(ra2, dec2), axis=-1)
    return np.degrees(2.0 * np.arcsin(np.minimum(chord / 2.0, 1.0))) * 3600.0


def offset(ra: np.ndarray, dec: np.ndarray, east_arcsec: np.ndarray, north_arcsec: np.ndarray) -> tuple:
    """Return the positions a small step east and north of (ra, dec)."""
    return to_sky(east_arcsec / 3600.0, north_arcsec / 3600.0, ra, dec)


# rows: the axes of galactic coordinates in equatorial ones (ESA 1997, The Hipparcos catalogue, eq. 1.5.11)
_TO_GALACTIC = np.array(
    [
        [-0.0548755604, -0.8734370902, -0.4838350155],
        [0.4941094279, -0.4448296300, 0.7469822445],
        [-0.8676661490, -0.1980763734, 0.4559837762],
    ]
)


def galactic(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return galactic longitudes and latitudes."""
    return position_of(unit_vector(ra, dec) @ _TO_GALACTIC.T)


def ecliptic(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ecliptic longitudes and latitudes of J2000."""
    eps = np.radians(OBLIQUITY_DEG)
    turn = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(eps), np.sin(eps)], [0.0, -np.sin(eps), np.cos(eps)]])
    return position_of(unit_vector(ra, dec) @ turn.T)


def reddening(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return E(B-V) in magnitudes of a plane-parallel dust layer, 0.03 mag to the pole, at most 2 mag."""
    return np.minimum(0.03 / np.maximum(np.abs(np.sin(np.radians(galactic(ra, dec)[1]))), 0.015), 2.0)


def field_grid(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return centres (ra, dec) of a grid of fields over the sky, rows of equal declination from the south.

    The pitch is the camera's field of view; the numbers are this grid's own, not the survey's.
    """
    span = camera.side * camera.pitch_deg[1]
    rows = np.arange(-90.0 + span / 2, 90.0, span)
    ra, dec = [], []
    for centre in rows:
        nearest = max(abs(centre) - span / 2, 0.0)
        count = max(int(np.ceil(360.0 * np.cos(np.radians(nearest)) / (camera.side * camera.pitch_deg[0]))), 1)
        ra.append(np.arange(count) * 360.0 / count)
        dec.append(np.full(count, centre))
    return np.concatenate(ra), np.concatenate(dec)


def sidereal_deg(jd_utc: np.ndarray | float, longitude_deg: float) -> np.ndarray:
    """Return the local mean sidereal time in degrees (UT1 taken as UTC: at most 14 arcsec off)."""
    return (280.46061837 + 360.98564736629 * (np.asarray(jd_utc) - 2451545.0) + longitude_deg) % 360.0


def sun_altitude(jd_utc: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the Sun's altitude in degrees (Astronomical Almanac low-precision formula, 0.01 degrees)."""
    days = jd_utc - 2451545.0
    anomaly = np.radians(357.528 + 0.9856003 * days)
    longitude = np.radians(280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    eps = np.radians(OBLIQUITY_DEG)
    ra = np.degrees(np.arctan2(np.cos(eps) * np.sin(longitude), np.cos(longitude)))
    dec = np.degrees(np.arcsin(np.sin(eps) * np.sin(longitude)))
    return altitude(ra, dec, jd_utc, camera)


def altitude(ra: np.ndarray, dec: np.ndarray, jd_utc: np.ndarray | float, camera: Camera) -> np.ndarray:
    """Return altitudes in degrees, without refraction."""
    hour = np.radians(sidereal_deg(jd_utc, camera.longitude_deg) - ra)
    lat, d = np.radians(camera.latitude_deg), np.radians(dec)
    return np.degrees(np.arcsin(np.sin(lat) * np.sin(d) + np.cos(lat) * np.cos(d) * np.cos(hour)))


def observer_au(mjd_tai: np.ndarray, camera: Camera) -> np.ndarray:
    """Return heliocentric equatorial positions of the telescope in au, shape (n, 3).

    The Earth from ERFA's epv00 (VSOP2000, 5 km), the telescope on a rotating sphere.
    """
    earth, _ = erfa.epv00(2400000.5, np.asarray(mjd_tai) + 32.184 / 86400.0)
    jd_utc = np.asarray(mjd_tai) + 2400000.5 - 37.0 / 86400.0
    ra = sidereal_deg(jd_utc, camera.longitude_deg)
    radius = (6371.0 + camera.altitude_km) / AU_KM
    return np.asarray(earth["p"]) + radius * unit_vector(ra, np.full_like(ra, camera.latitude_deg))
