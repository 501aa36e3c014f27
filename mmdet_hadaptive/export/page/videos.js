/** Videos and cameras. */

const CAMERA_ERRORS = {
  NotAllowedError: 'The camera is not allowed: allow it beside the address of this page, and retry',
  NotFoundError: 'There is no camera: connect one, or open an image or a video',
  NotReadableError: 'The camera gives no image: close what else uses it',
};

function makeVideo() {
  return Object.assign(document.createElement('video'), {
    muted: true,
    loop: true,
    playsInline: true,
  });
}

/**
 * Opens a video file.
 *
 * @param {File} file
 * @returns {Promise<HTMLVideoElement>} That plays.
 * @throws {Error} If this browser cannot play it.
 */
export async function openVideo(file) {
  const video = makeVideo();
  video.src = URL.createObjectURL(file);
  try {
    await video.play();
    if (!video.videoWidth) throw new Error('it has no picture');
  } catch {
    closeVideo(video);
    throw new Error(
      `${file.name} cannot be played by this browser: convert it to MP4 (H.264) or WebM`,
    );
  }
  return video;
}

/**
 * Opens the camera, of telephones the one at the back.
 *
 * @returns {Promise<HTMLVideoElement>} That plays.
 * @throws {Error} If there is none, or it may not be used.
 */
export async function openCamera() {
  if (!navigator.mediaDevices) {
    throw new Error('Browsers give the camera to pages on https and localhost only: open it there');
  }
  const video = makeVideo();
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: { ideal: 'environment' } },
    });
    await video.play();
  } catch (error) {
    closeVideo(video);
    throw new Error(CAMERA_ERRORS[error.name] ?? `The camera does not start: ${error.message}`);
  }
  return video;
}

/** Ends a video, and switches its camera off. */
export function closeVideo(video) {
  video.pause();
  video.srcObject?.getTracks().forEach((track) => track.stop());
  if (video.src) URL.revokeObjectURL(video.src);
}

/**
 * Waits until a video shows another frame; in a page that is not looked at, until it is.
 *
 * @param {HTMLVideoElement} video
 * @param {number} time Of the last one.
 * @param {function(): boolean} isOver Whether nobody waits for it any more.
 * @returns {Promise<number>} Of the new one.
 */
export async function nextFrame(video, time, isOver) {
  while (video.currentTime === time && !isOver()) {
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
  return video.currentTime;
}
