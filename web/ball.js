// The light ball: a small sphere that shows the position of Edit Head's key light.
// Angles are in degrees. Azimuth 0 and elevation 0: light from the viewer. Azimuth 90: from the right. Elevation 90: from above.

const RADIANS = Math.PI / 180;

/** The unit vector towards the lamp: x right, y up, z towards the viewer. */
export function direction(azimuth, elevation) {
  const [a, e] = [azimuth * RADIANS, elevation * RADIANS];
  return [Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)];
}

/**
 * The lamp position for a point. On the disc, the lamp is in front of the ball, directly over the point. Outside the rim it
 * moves behind the ball; at twice the radius it is exactly behind it.
 * @param {number} x right of the middle, in radii
 * @param {number} y above the middle, in radii
 * @returns {[number, number]} azimuth and elevation
 */
export function lampAt(x, y) {
  const r = Math.hypot(x, y);
  const polar = r <= 1 ? Math.asin(r) : Math.min(r, 2) * (Math.PI / 2);
  const [dx, dy] = r > 0 ? [(x / r) * Math.sin(polar), (y / r) * Math.sin(polar)] : [0, 0];
  return [Math.atan2(dx, Math.cos(polar)) / RADIANS, Math.asin(Math.max(-1, Math.min(1, dy))) / RADIANS];
}

/**
 * Draw the ball.
 * @param {HTMLCanvasElement} canvas square
 * @param {object} lamp Edit Head's widget values
 * @param {boolean} lit whether this light is in use
 */
export function drawBall(canvas, lamp, lit) {
  const side = canvas.width;
  const ctx = canvas.getContext("2d");
  const d = direction(lamp.key_azimuth, lamp.key_elevation);
  const rgb = colour(lamp.key_color);
  const image = ctx.createImageData(side, side);
  const middle = side / 2;
  const radius = middle - side / 12;
  // The light of a larger lamp wraps farther around the ball.
  const wrap = lamp.key_softness;
  for (let i = 0, at = 0; i < side; i++) {
    for (let j = 0; j < side; j++, at += 4) {
      const [x, y] = [(j + 0.5 - middle) / radius, (middle - i - 0.5) / radius];
      const r = Math.hypot(x, y);
      const cover = Math.min(1, (1 - r) * radius + 0.5);
      if (cover <= 0) continue;
      const z = Math.sqrt(Math.max(0, 1 - r * r));
      const facing = Math.max(0, (x * d[0] + y * d[1] + z * d[2] + wrap) / (1 + wrap));
      for (let c = 0; c < 3; c++) {
        image.data[at + c] = 200 * Math.min(1.25, lamp.ambient + lamp.key_intensity * facing * rgb[c]);
      }
      image.data[at + 3] = 255 * cover * (lit ? 1 : 0.45);
    }
  }
  ctx.putImageData(image, 0, 0);
  ctx.lineWidth = side / 40;
  ctx.strokeStyle = lit ? "rgba(255,255,255,.55)" : "rgba(255,255,255,.3)";
  ctx.beginPath();
  ctx.arc(middle, middle, radius, 0, 2 * Math.PI);
  ctx.stroke();

  // The lamp: a dot in front of the ball, a ring behind it.
  const behind = d[2] < -1e-6;
  ctx.beginPath();
  ctx.arc(middle + d[0] * radius, middle - d[1] * radius, side / 14, 0, 2 * Math.PI);
  ctx.globalAlpha = lit ? 1 : 0.6;
  ctx.fillStyle = behind ? "rgba(0,0,0,.35)" : "#ffd66b";
  ctx.fill();
  ctx.strokeStyle = behind ? "#ffd66b" : "rgba(0,0,0,.65)";
  ctx.stroke();
  ctx.globalAlpha = 1;
}

/** Convert a colour such as #ff9d52 or #f95 to red, green and blue in 0..1. Anything else gives white. */
function colour(text) {
  let digits = String(text).trim().replace(/^#/, "");
  if (digits.length === 3) digits = [...digits].map((digit) => digit + digit).join("");
  if (!/^[0-9a-f]{6}$/i.test(digits)) return [1, 1, 1];
  return [0, 2, 4].map((i) => parseInt(digits.slice(i, i + 2), 16) / 255);
}
