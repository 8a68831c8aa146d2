"use strict";
// The decoder: every layer's forward pass, as in tinyvae/kernels/ops/, in plain loops over flat arrays.
// ACTIVATIONS, the activations by name, stand behind it on the page.
// It knows arrays and shapes, nothing of the page. Images are channels last: pixel (i, j), channel c of an (H, W, C)
// image stands at (i * W + j) * C + c.

// Each kind of layer: fills y, which comes with the bias in it, from x.
const LAYERS = {
  // y = x w + b; x: (K), w: (K, N), y: (N)
  dense({ weight }, x, y) {
    const N = y.length;
    for (let k = 0; k < x.length; k++) {
      const value = x[k];
      if (value === 0) continue; // half of what a ReLU leaves
      for (let n = 0; n < N; n++) y[n] += value * weight[k * N + n];
    }
  },

  // y[i, j, f] = b[f] + Σ x[i·sh + u − ph, j·sw + v − pw, c] · w[u, v, c, f]; w: (KH, KW, C, F)
  conv2d(layer, x, y) {
    const [C, F] = [layer.in[2], layer.out[2]];
    eachTap(layer, layer.out, layer.in, (small, large, tap) => {
      for (let c = 0; c < C; c++) {
        const value = x[large * C + c];
        const row = (tap * C + c) * F;
        for (let f = 0; f < F; f++) y[small * F + f] += value * layer.weight[row + f];
      }
    });
  },

  // Its adjoint: each x[i, j, f] · w[u, v, c, f] is added to the y[p, q, c] that the convolution would have read
  conv_transpose2d(layer, x, y) {
    const [F, C] = [layer.in[2], layer.out[2]];
    eachTap(layer, layer.in, layer.out, (small, large, tap) => {
      for (let c = 0; c < C; c++) {
        const row = (tap * C + c) * F;
        let sum = 0;
        for (let f = 0; f < F; f++) sum += x[small * F + f] * layer.weight[row + f];
        y[large * C + c] += sum;
      }
    });
  },

  // y = x · w + b of each channel: BatchNorm after training, with its running mean and variance in w and b; w: (C)
  scale({ weight }, x, y) {
    for (let i = 0; i < y.length; i++) y[i] += x[i] * weight[i % weight.length];
  },

  activation(layer, x, y) {
    y.set(x);
  },

  reshape(layer, x, y) {
    y.set(x); // the same numbers in the same order
  },
};

// Calls visit(small pixel, large pixel, tap of the kernel) wherever a convolution from large to small would read.
function eachTap({ kernel, stride, padding }, [OH, OW], [H, W], visit) {
  for (let i = 0; i < OH; i++) {
    for (let u = 0; u < kernel[0]; u++) {
      const p = i * stride[0] + u - padding[0];
      if (p < 0 || p >= H) continue;
      for (let j = 0; j < OW; j++) {
        for (let v = 0; v < kernel[1]; v++) {
          const q = j * stride[1] + v - padding[1];
          if (q >= 0 && q < W) visit(i * OW + j, p * W + q, u * kernel[1] + v);
        }
      }
    }
  }
}

// Base64 to a typed array.
function unpack({ data }, Type) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return new Type(bytes.buffer);
}

const sizeOf = (shape) => shape.reduce((a, b) => a * b, 1);

class Decoder {
  // layers: as explore.py describes them; mean: the activation that makes pixels of the last outputs
  constructor(layers, mean) {
    this.layers = layers.map((layer) => ({
      ...layer,
      kernel: layer.weight.shape,
      weight: unpack(layer.weight, Float32Array),
      bias: unpack(layer.bias, Float32Array),
      y: new Float32Array(sizeOf(layer.out)),
    }));
    this.mean = ACTIVATIONS[mean];
  }

  // The mean image at z as one flat array, a new one for each call.
  decode(z) {
    let x = Float32Array.from(z);
    for (const layer of this.layers) {
      const { y, bias } = layer;
      y.fill(0);
      for (let i = 0; bias.length && i < y.length; i += bias.length) y.set(bias, i); // once per pixel
      LAYERS[layer.kind](layer, x, y);
      if (layer.act !== "identity") {
        const act = ACTIVATIONS[layer.act];
        for (let i = 0; i < y.length; i++) y[i] = act(y[i]);
      }
      x = y;
    }
    return x.map(this.mean);
  }
}
