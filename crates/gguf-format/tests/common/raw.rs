//! A GGUF file put together byte by byte, without the crate's writer, so that anything in it can be wrong.

// Every test program uses a part of it.
#![allow(dead_code)]

#[derive(Clone)]
pub(crate) struct RawTensor {
    pub(crate) name: Vec<u8>,
    pub(crate) n_dims: Option<u32>,
    /// In the order of the file: contiguous dimension first.
    pub(crate) ne: Vec<u64>,
    pub(crate) ty: u32,
    pub(crate) offset: u64,
}

#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) n_tensors: Option<u64>,
    pub(crate) n_keys: Option<u64>,
    /// Key and everything behind it.
    pub(crate) keys: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) key_len: Option<u64>,
    pub(crate) name_len: Option<u64>,
    pub(crate) tensors: Vec<RawTensor>,
    pub(crate) alignment: usize,
    pub(crate) data: Vec<u8>,
}

impl Raw {
    pub(crate) fn empty() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_keys: None,
            keys: Vec::new(),
            key_len: None,
            name_len: None,
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
        }
    }

    /// Three keys, two tensors of 8 and 5 values.
    pub(crate) fn valid() -> Self {
        let mut raw = Self::empty();
        raw.key("general.architecture", 8, &string(b"llama"));
        raw.key("llama.block_count", 4, &2u32.to_le_bytes());
        raw.key("tokenizer.ggml.tokens", 9, &array(8, &[&string(b"a"), &string(b"\xff")]));
        raw.tensors.push(tensor("w", &[4, 2], 0, 0));
        raw.tensors.push(tensor("b", &[5], 0, 32));
        raw.data = (0..64).collect();
        raw
    }

    pub(crate) fn key(&mut self, key: &str, ty: u32, value: &[u8]) {
        self.keys.push((key.into(), [&ty.to_le_bytes()[..], value].concat()));
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, rest) in &self.keys {
            out.extend(self.key_len.unwrap_or(key.len() as u64).to_le_bytes());
            out.extend(key);
            out.extend(rest);
        }
        for t in &self.tensors {
            out.extend(self.name_len.unwrap_or(t.name.len() as u64).to_le_bytes());
            out.extend(&t.name);
            out.extend(t.n_dims.unwrap_or(t.ne.len() as u32).to_le_bytes());
            t.ne.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(t.ty.to_le_bytes());
            out.extend(t.offset.to_le_bytes());
        }
        if !self.tensors.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
        }
        out.extend(&self.data);
        out
    }
}

pub(crate) fn tensor(name: &str, ne: &[u64], ty: u32, offset: u64) -> RawTensor {
    RawTensor { name: name.into(), n_dims: None, ne: ne.into(), ty, offset }
}

pub(crate) fn string(s: &[u8]) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s].concat()
}

pub(crate) fn array(ty: u32, items: &[&[u8]]) -> Vec<u8> {
    [&ty.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
}
