// The microphone, as a WAV of 16 kHz: a form that every server reads, whatever this browser records in.

const RATE = 16000;

export class Recorder {
  /** Begin to record; asks the person for leave. */
  static async start() {
    if (!navigator.mediaDevices) throw new Error("A page may use the microphone only over https, or on this machine.");
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    return new Recorder(stream);
  }

  constructor(stream) {
    this.stream = stream;
    this.parts = [];
    this.recording = new MediaRecorder(stream);
    this.recording.ondataavailable = (event) => this.parts.push(event.data);
    this.recording.start();
  }

  /** End, and give the clip. */
  async stop() {
    await new Promise((resolve) => { this.recording.onstop = resolve; this.recording.stop(); });
    this.stream.getTracks().forEach((track) => track.stop());
    const samples = await decoded(await new Blob(this.parts).arrayBuffer());
    return new File([wav(samples)], "recording.wav", { type: "audio/wav" });
  }
}

/** One channel of samples in -1..1, at 16 kHz. */
async function decoded(bytes) {
  const context = new AudioContext();
  const sound = await context.decodeAudioData(bytes);
  await context.close();
  const offline = new OfflineAudioContext(1, Math.max(1, Math.ceil(sound.duration * RATE)), RATE);
  const source = new AudioBufferSourceNode(offline, { buffer: sound });
  source.connect(offline.destination);
  source.start();
  return (await offline.startRendering()).getChannelData(0);
}

function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
  const text = (at, value) => [...value].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + samples.length * 2, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // whole numbers
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, RATE, true);
  view.setUint32(28, RATE * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples.length * 2, true);
  samples.forEach((sample, i) => view.setInt16(44 + i * 2, Math.max(-1, Math.min(1, sample)) * 32767, true));
  return view.buffer;
}
